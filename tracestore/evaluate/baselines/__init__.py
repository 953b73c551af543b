"""Other ways to rank the tokens that drove a prediction, small and plainly named, to compare with.

simple     no model at all: random, recency, first token
attention  attention maps: raw attention, rollout, norms of what is moved, direct logit attribution, proximity (ALTI, IFR)
gradients  the model's own gradient: saliency, gradient x input, integrated gradients
rules      other rules of back-propagation in the same machinery: AttnLRP, and variants of our own
ablation   the model with something removed: leave one out (two ways), regression on random removals
"""
