"""`python -m tabular_imaging <verb>`."""

if __name__ == "__main__":  # imported below, so that worker processes, which import this file, stay light
    from tabular_imaging.cli import main

    main()
