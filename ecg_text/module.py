"""ETP as a LightningModule: wiring and logging. The equations are in model.py and shared/losses."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pytorch_lightning.cli import OptimizerCallable
from torch import Tensor, nn

from ecg_text.data.module import ECGBatch, ECGDataModule
from ecg_text.model import ECGTextModel, class_embeddings, zero_shot_scores
from ecg_text.prompts import load_prompts
from shared.backbones import TextEncoder, text_features
from shared.backbones.text import PACKAGED_MINILM
from shared.data.problems import DataError
from shared.losses import clip_loss, retrieval_accuracy
from shared.methods import Pretraining, Step
from shared.metrics import EmbeddingPairs, auroc

# Name in tables of a language model other than the paper's, by the model's name or, if it has none, its class.
LANGUAGE_MODEL_TITLES = {"HashedNgrams": "n-grams", PACKAGED_MINILM: "MiniLM"}


class ETP(Pretraining):
    """ECG-text pre-training (paper, section 2.1).

    The language model is frozen, so the feature of each distinct report is computed once, kept on disk, and looked up
    in training. A checkpoint holds the network, the class prompts' features, the language model's name and, from the
    data module, how signals were prepared: it suffices for classification.

    Args:
        encoder: ECG encoder `(B, L, T) -> (B, encoder.out_dim)`; the paper's is ResNet18-1D (section 3.2).
        text_encoder: Frozen language model; the paper's is BioClinicalBERT (section 3.2).
        text_dim: Width of the language model's features.
        projection_dim: Width of the shared embedding (section 3.2: 512).
        projector: Kind of both projectors: section 3.2 has linear ones, section 2.1 non-linear ones (`mlp`).
        temperature: sigma_1 of Eqs. 3 and 4 (0.07).
        learn_temperature: Whether the temperature is trained: section 2.1 fixes it, while section 3.2 mentions its
            initial value.
        augment: Augmentation of the training signals; the paper has none.
        prompts: Name or path of the class prompts, see `ecg_text.prompts.load_prompts`.
        optimizer: Makes the optimiser. Section 3.2 has Adam with weight decay 1e-5 and learning rate "2 x e^-3", read
            here as 2e-3.
        warmup_epochs: Epochs of linear warm-up; the paper has none.
        lr_schedule: Constant (the paper has no schedule), or a half cosine to 0.
        text_cache_dir: Folder in which the language model's features are kept.
    """

    title = "ETP"
    machine_arguments: ClassVar[tuple[str, ...]] = ("text_cache_dir",)

    def __init__(
        self,
        encoder: nn.Module,
        text_encoder: TextEncoder,
        text_dim: int = 768,
        projection_dim: int = 512,
        projector: Literal["linear", "mlp"] = "linear",
        temperature: float = 0.07,
        learn_temperature: bool = False,
        augment: nn.Module | None = None,
        prompts: str = "paper",
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=2e-3, weight_decay=1e-5),
        warmup_epochs: int = 0,
        lr_schedule: Literal["constant", "cosine"] = "constant",
        text_cache_dir: str = "data/cache/text",
    ) -> None:
        super().__init__(optimizer, warmup_epochs, lr_schedule)
        self.model = ECGTextModel(encoder, text_dim, projection_dim, projector)
        # It is frozen, so it bypasses nn.Module's registry: if it is a module, it is not trained, saved or moved.
        self.__dict__["text_encoder"] = text_encoder
        self.text_encoder: TextEncoder
        self.text_cache_dir = Path(text_cache_dir)
        self.augment = augment
        log_temperature = torch.tensor(float(temperature)).log()
        self.log_temperature = nn.Parameter(log_temperature, requires_grad=learn_temperature)
        self.class_names: dict[str, str] = {}
        self.prompts: list[list[str]] = []
        self.prompt_features = torch.empty(0, text_dim)

    # Not an attribute: nn.Module would register it in addition to `model.encoder`, which is its name in checkpoints.
    @property
    def encoder(self) -> nn.Module:  # type: ignore[override]
        """The ECG encoder, which linear evaluation uses."""
        return self.model.encoder

    @classmethod
    def variant_title(cls, settings: Mapping[str, Any]) -> str:
        """`ETP`, followed by the language model if it is not the paper's.

        Args:
            settings: The `init_args` of the model in a run's `config.yaml`.

        Example:
            >>> ETP.variant_title({"text_encoder": {"class_path": "shared.backbones.HashedNgrams"}})
            'ETP (n-grams)'
        """
        text_encoder = settings["text_encoder"]
        class_name = text_encoder["class_path"].rpartition(".")[2]
        language_model = LANGUAGE_MODEL_TITLES.get(text_encoder.get("init_args", {}).get("model", class_name))
        return f"{cls.title} ({language_model})" if language_model else cls.title

    # ------------------------------------------------------------------ text

    def encode_text(self, texts: list[str]) -> Tensor:
        """Features of the frozen language model `(N, text_dim)`, read from the cache on disk if they are there.

        Raises:
            DataError: The language model is not on this machine and cannot be downloaded, or the width of its features
                is not `text_dim`.
        """
        try:
            features = text_features(texts, self.text_encoder, self.text_cache_dir)
        except FileNotFoundError as error:  # says how to get the model
            raise DataError(str(error)) from error
        if features.shape[1] != self.hparams["text_dim"]:
            raise DataError(
                f"{self.text_encoder.name} gives features of width {features.shape[1]}, but text_dim is "
                f"{self.hparams['text_dim']}: set --model.init_args.text_dim {features.shape[1]}"
            )
        return features

    def set_classes(self, class_names: dict[str, str], prompts: list[list[str]] | None = None) -> None:
        """Choose the classes of zero-shot classification.

        Args:
            class_names: Names of the classes by code.
            prompts: Sentences about each class; by default those of the `prompts` setting.
        """
        self.class_names = dict(class_names)
        self.prompts = prompts or load_prompts(self.hparams["prompts"]).sentences(class_names)
        self.prompt_features = self.encode_text([text for texts in self.prompts for text in texts])

    def class_embedding(self) -> Tensor:
        """Embedding of each class's prompts, `(C, E)`, of unit length."""
        embedded = self.model.embed_text(self.prompt_features.to(self.device))
        return class_embeddings(embedded, [len(texts) for texts in self.prompts])

    def forward(self, signal: Tensor) -> Tensor:
        """Zero-shot scores of prepared signals, which are cosine similarities, `(B, L, T) -> (B, C)`."""
        return zero_shot_scores(self.model.embed_ecg(signal), self.class_embedding())

    # -------------------------------------------------------------- training

    def setup(self, stage: str) -> None:
        """Look up the features of the reports and prompts, and prepare the metrics."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(data, ECGDataModule):
            raise TypeError(f"ETP needs one of ecg_text's data modules, got {type(data).__name__}")
        if stage in ("fit", "validate"):
            if not data.reports:
                raise DataError(f"{type(data).__name__} has no reports to pre-train on; use it for evaluation only")
            self.report_features = self.encode_text(data.reports)
            self.val_pairs = EmbeddingPairs()
        self.scored = EmbeddingPairs()
        if stage != "predict":
            self._use_classes_of(data)

    def _use_classes_of(self, data: ECGDataModule) -> None:
        if list(data.class_names) != list(self.class_names):
            self.set_classes(data.class_names)

    def on_fit_start(self) -> None:
        """Move the reports' features to the model's device; as a plain attribute they are in no checkpoint."""
        self.report_features = self.report_features.to(self.device)

    def on_validation_start(self) -> None:
        """As `on_fit_start`. Also set the classes: a checkpoint, which is loaded after `setup`, may have others."""
        self.on_fit_start()
        self._use_classes_of(self.trainer.datamodule)  # type: ignore[attr-defined]

    def on_test_start(self) -> None:
        """Set the classes, as in `on_validation_start`."""
        self._use_classes_of(self.trainer.datamodule)  # type: ignore[attr-defined]

    @property
    def temperature(self) -> Tensor:
        """The temperature sigma_1, a scalar."""
        return self.log_temperature.exp()

    def step(self, batch: ECGBatch) -> Step:
        """The loss of Eqs. 3 to 5 on a batch of ECGs and their reports."""
        signal = self.augment(batch.signal) if self.augment is not None else batch.signal
        ecg = self.model.embed_ecg(signal)
        text = self.model.embed_text(self.report_features[batch.report])
        return Step(clip_loss(ecg, text, self.temperature, gather=self.training), ecg)

    def validation_step(self, batch: ECGBatch, batch_idx: int) -> None:
        """Collect embeddings and zero-shot scores."""
        ecg = self.model.embed_ecg(batch.signal)
        self.val_pairs.update(ecg, self.model.embed_text(self.report_features[batch.report]), batch.row)
        self._score(ecg, batch)

    def on_validation_epoch_end(self) -> None:
        """Log loss and retrieval over the whole split, in batches of the training batch size, and zero-shot AUROC."""
        ecg, text = self.val_pairs.compute()
        self.val_pairs.reset()
        size = self.trainer.datamodule.batch_size  # type: ignore[attr-defined]
        chunks = [(a, b) for a, b in zip(ecg.split(size), text.split(size), strict=True) if len(a) > 1]
        # A record counts the same in a last chunk that is smaller, where its loss is lower.
        share = torch.tensor([len(a) for a, _ in chunks], device=ecg.device) / sum(len(a) for a, _ in chunks)
        loss = share @ torch.stack([clip_loss(a, b, self.temperature, gather=False) for a, b in chunks])
        accuracy = share @ torch.stack([retrieval_accuracy(a, b) for a, b in chunks])
        # Every process has the whole split's values; sync_dist only keeps Lightning from warning.
        self.log_dict({"val/loss": loss, "val/retrieval_accuracy": accuracy}, sync_dist=True)
        self._log_auroc("val")

    def test_step(self, batch: ECGBatch, batch_idx: int) -> None:
        """Collect zero-shot scores."""
        self._score(self.model.embed_ecg(batch.signal), batch)

    def on_test_epoch_end(self) -> None:
        """Log the macro zero-shot AUROC."""
        self._log_auroc("test")

    def predict_step(self, batch: ECGBatch, batch_idx: int) -> dict[str, Any]:
        """Columns for `shared.callbacks.PredictionWriter`: record id, score of each class, embedding."""
        ecg = self.model.embed_ecg(batch.signal)
        scores = zero_shot_scores(ecg, self.class_embedding())
        table = self.trainer.datamodule.frame  # type: ignore[attr-defined]
        columns: dict[str, Any] = {"id": table["id"].to_numpy()[batch.row.cpu().numpy()]}
        columns |= {f"score/{code}": scores[:, i].cpu().numpy() for i, code in enumerate(self.class_names)}
        return columns | {"embedding": list(ecg.float().cpu().numpy())}

    def _score(self, ecg: Tensor, batch: ECGBatch) -> None:
        if not self.class_names:  # records without labels can still be pre-trained on
            return
        scores = zero_shot_scores(ecg, self.class_embedding())
        self.scored.update(scores[batch.labelled], batch.target[batch.labelled], batch.row[batch.labelled])

    def _log_auroc(self, split: str) -> None:
        if not self.class_names:
            return
        scores, target = self.scored.compute()
        self.scored.reset()
        shape = (-1, len(self.class_names))  # torchmetrics squeezes tensors that hold a single value
        by_class = auroc(scores.reshape(shape).cpu().numpy(), target.reshape(shape).cpu().numpy())
        if np.isfinite(by_class).any():  # a class that all or none of this split's records have has no AUROC
            self.log(f"{split}/auroc", float(np.nanmean(by_class)), prog_bar=True, sync_dist=True)

    # ----------------------------------------------------------- checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what classification needs besides plain hyper-parameters."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["etp"] = {
            "class_names": self.class_names,
            "prompts": self.prompts,
            "prompt_features": self.prompt_features.cpu(),
            "text_encoder": self.text_encoder.name,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore what `on_save_checkpoint` added."""
        own = checkpoint["etp"]
        self.class_names, self.prompts = own["class_names"], own["prompts"]
        self.prompt_features = own["prompt_features"]
