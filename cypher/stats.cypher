// name: stats
// question: What is in the store, by model and method, and how sound is it?
// param model_id: string? -- only this model
// param method: string? -- only this attribution method
// param dataset: string? -- only traces that an Item of this data set asked for
// param split: string? -- only traces that an Item of this split asked for
// param tag: string? -- only traces that an Item with this tag asked for
// param session_id: string? -- only traces that an Item of this session asked for
// param since: int? -- only traces made at or after this time, milliseconds since 1970-01-01 UTC
// param until: int? -- only traces made before this time, milliseconds since 1970-01-01 UTC
// param correct: bool? -- count only Outputs whose token is (true) or is not (false) the start of what was expected
// param origin: string(prompt|generated|given)? -- count only Outputs whose token stands in the text and came from here
// param k: int(1..) = 1000 -- rows at most
// without min_share: this counts predictions, not what drives them
// without sink: this counts predictions, not what drives them
// column model_id: string -- model
// column method: string -- attribution method
// column traces: int -- traces
// column items: int -- input lines that asked for them
// column tokens: int -- tokens
// column outputs: int -- explained predictions
// column closure_mean: float? -- mean relative closure error of the predictions
// column closure_max: float? -- the largest
// column replay_gap_max: float -- largest |logit - the model's own logit|, logits
// column attention_kept_mean: float? -- mean share of attention-edge mass that was kept, 0 to 1
// column attention_kept_min: float? -- the smallest
// column sink_mass_mean: float? -- mean share of `direct` on the sink, 0 to 1
// column mlp_share_mean: float? -- mean share of |weight| written by MLPs, 0 to 1
// column prob_mean: float? -- mean probability of the explained token
// column correct: int -- predictions that are the start of what was expected
// column wrong: int -- predictions that are not (the rest had nothing expected)
// order: model_id, method
// rows: k
// seeks: nothing; scans Trace, Item and Output
// merge: group model_id, method; sum traces, items, tokens, outputs, correct, wrong; mean closure_mean, attention_kept_mean, sink_mass_mean, mlp_share_mean, prob_mean by outputs; max closure_max, replay_gap_max; min attention_kept_min
MATCH (tr:Trace)
WHERE tr.ready_id IS NOT NULL
  AND tr.model_id = $model_id                                                  // when $model_id
  AND tr.method = $method                                                      // when $method
  AND tr.created_at >= $since                                                  // when $since
  AND tr.created_at < $until                                                   // when $until
  AND EXISTS { MATCH (x:Item)-[:OF]->(tr) WHERE x.item_id IS NOT NULL          // when $dataset or $split or $tag or $session_id
      AND x.dataset = $dataset                                                 // when $dataset
      AND x.split = $split                                                     // when $split
      AND $tag IN x.tags                                                       // when $tag
      AND x.session_id = $session_id                                           // when $session_id
  }                                                                            // when $dataset or $split or $tag or $session_id
OPTIONAL MATCH (y:Item)-[:OF]->(tr)
WITH tr, count(y) AS items
OPTIONAL MATCH (o:Output)-[:OF]->(tr)
WHERE o.uid IS NOT NULL                                                        // when $correct or $origin
  AND o.correct = $correct                                                     // when $correct
  AND EXISTS { MATCH (o)-[:EMITS]->(e:Token) WHERE e.origin = $origin }        // when $origin
WITH tr.model_id AS model_id, tr.method AS method, tr.trace_no AS trace_no, tr.n_tokens AS n_tokens, tr.replay_gap AS replay_gap, items,
     count(o) AS outputs, sum(o.closure) AS closure, max(o.closure) AS closure_max, sum(o.attention_kept) AS kept,
     min(o.attention_kept) AS kept_min, sum(o.sink_mass) AS sink_mass, sum(o.mlp_share) AS mlp_share, sum(o.prob) AS prob,
     sum(CASE WHEN o.correct THEN 1 ELSE 0 END) AS correct,
     sum(CASE WHEN o.correct IS NULL OR o.correct THEN 0 ELSE 1 END) AS wrong
RETURN model_id, method, count(*) AS traces, sum(items) AS items, sum(n_tokens) AS tokens, sum(outputs) AS outputs,
       CASE WHEN sum(outputs) > 0 THEN sum(closure) / sum(outputs) END AS closure_mean, max(closure_max) AS closure_max,
       max(replay_gap) AS replay_gap_max,
       CASE WHEN sum(outputs) > 0 THEN sum(kept) / sum(outputs) END AS attention_kept_mean, min(kept_min) AS attention_kept_min,
       CASE WHEN sum(outputs) > 0 THEN sum(sink_mass) / sum(outputs) END AS sink_mass_mean,
       CASE WHEN sum(outputs) > 0 THEN sum(mlp_share) / sum(outputs) END AS mlp_share_mean,
       CASE WHEN sum(outputs) > 0 THEN sum(prob) / sum(outputs) END AS prob_mean,
       sum(correct) AS correct, sum(wrong) AS wrong
ORDER BY model_id, method
LIMIT $k
