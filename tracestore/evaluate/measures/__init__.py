"""How good an order of tokens is: against marked evidence (`ranking`), against removals (`faithfulness`), edge by edge (`edges`)."""
