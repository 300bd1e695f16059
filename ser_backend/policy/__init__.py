"""The last step: a language model (policy) trained against evolved reward models, on trl.

settings    every setting, described once              prompts    what it is asked, and the examples of sft and dpo
shaping     rewards as they are trained on             divergence the KL to the start model, estimated
figures     one step in numbers; alarms in words       members    the reward models, and the judge that only watches
writer      the language model: load, sample, measure  training   trl's trainers, told step by step
loop        the whole way as a generator of events     folder     one folder a policy
gain        what best of n says RL could gain          card       README of the result

Importing this package loads no torch; trl, which takes seconds, is imported where a trainer is made.
"""
