"""The page Agreement in parts."""
