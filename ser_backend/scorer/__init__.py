"""Asking a reward model: which one (choice), held in memory (model), asked by many at once (batcher), over HTTP (api).

The pages ask a process of their own (resident, reached through client), which holds one model and leaves when nobody asks;
`serve` offers one model to other programs. Importing this package, choice and client loads no torch.
"""
