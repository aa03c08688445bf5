"""From catalogues, images and votes to batches; `synthetic` writes a survey with planted classes."""
