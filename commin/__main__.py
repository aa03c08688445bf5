"""`python -m commin <verb>`."""

if __name__ == "__main__":  # imported below, so that worker processes, which import this file, stay light
    from commin.cli import main

    main()
