"""How examples become training: short programs over train, sample and grade, one file each."""
