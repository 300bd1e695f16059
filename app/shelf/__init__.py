"""Parts of the page Data: the wizard that imports, and what stands on the shelf: a set's statistics, versions and kin."""
