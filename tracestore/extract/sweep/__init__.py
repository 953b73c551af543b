"""The sweep over every causal-LM class of transformers: exact, or refused by name and reason; never a wrong number.

`python -m tracestore.extract.sweep` runs all of them and writes docs/families.md. `configs` and `build` make tiny random models,
`replay` and `reference` an independent frozen function, `judge` compares, `outcome` is one class, `workers` runs many.
"""
