"""The `local` platform: release folders, an atomic `current` link, and supervised processes behind one listening socket."""
