"""`python -m ecg_text <verb>`."""

if __name__ == "__main__":  # imported below, so that worker processes, which import this file, stay light
    from ecg_text.cli import main

    main()
