"""`python -m galaxy_clusters <verb>`."""

if __name__ == "__main__":  # imported below, so that worker processes, which import this file, stay light
    from galaxy_clusters.cli import main

    main()
