"""`python -m secateur.cli`, the same as the command `secateur`."""

from secateur.cli.main import main

if __name__ == "__main__":
    main()
