"""xpconv beside other libraries: the same work on the same cores or card, measured side by side in one run (``xpconv bench``).

===================== ===================================================================================================
`workloads`           what is computed: shapes, inputs, and the arithmetic or traffic of each
`peers`               who computes it, a file a library
`worker`              the process that one peer runs in
`processes`           starting such processes, asking them and outliving them
`quiet`               what other processes do in the meantime
`runner`              the run: checks first, then rounds in which all take turns
`settings`            what a run can be told, and what is refused
`machine`             what the machine is and what it can do at most
`results`             what a run found: medians, ratios, and the JSON file
`table`, `readme`, `plot`  how it is shown
`cards`               what kinds of cards there are, and how many blocks of a kernel they hold
`cubin`               what the compiler makes of the CUDA kernels, without a card
`roofline`            what they should take on a card by that: a prediction
===================== ===================================================================================================
"""
