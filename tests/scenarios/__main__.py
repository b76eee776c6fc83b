"""``python -m tests.scenarios``: play seeds, print what broke and how to play it again."""

from tests.scenarios import standins

if __name__ == "__main__":
    standins.install()  # before anything that takes threads or clocks by name is imported
    from tests.scenarios.command import main

    standins.redate()
    main()
