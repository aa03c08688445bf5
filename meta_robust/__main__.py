"""`python -m meta_robust <verb>`."""

if __name__ == "__main__":  # imported below, so that worker processes, which import this file, stay light
    from meta_robust.cli import main

    main()
