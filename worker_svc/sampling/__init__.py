"""From logits to token ids (T4), on one rank or on all ranks of a group.

Order in which a row's controls are applied; where transformers has them it is its order:

1. logit_bias;
2. repetition_penalty (prompt and outputs; divides what is positive, multiplies what is negative), then
   frequency_penalty times how often, and presence_penalty if at all, the token is among the outputs;
3. what is forbidden: all but allowed_ids, bad_ids, end tokens below min_tokens;
4. temperature, top_k, top_p, min_p, typical_p, each within what the ones before have left.

Temperature 0 takes the largest logit after step 3, the lowest id among equals. Tokens that are equal to
the last one kept are kept. log-probabilities are those of the model, before any control.
"""
