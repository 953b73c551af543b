// name: drivers_across
// question: When the model predicts this token, which earlier tokens drive it, over all prompts?
// param token_id: int? -- the predicted token's vocabulary id
// param text: string? -- the predicted token's text, leading space included
// needs: one of token_id, text
// param model_id: string? -- only this model
// param method: string? -- only this attribution method
// param dataset: string? -- only traces that an Item of this data set asked for
// param split: string? -- only traces that an Item of this split asked for
// param tag: string? -- only traces that an Item with this tag asked for
// param session_id: string? -- only traces that an Item of this session asked for
// param since: int? -- only traces made at or after this time, milliseconds since 1970-01-01 UTC
// param until: int? -- only traces made before this time, milliseconds since 1970-01-01 UTC
// param correct: bool? -- only Outputs whose token is (true) or is not (false) the start of what was expected
// param origin: string(prompt|generated|given)? -- only Outputs whose token stands in the text and came from here
// param driver_origin: string(prompt|generated|given)? -- only driving tokens that came from here
// param min_share: float(0..1) = 0 -- count an Output for a driving token only if the token's share of it is at least this
// param sink: bool = false -- with attention sinks too
// param k: int(1..) = 20 -- rows at most
// column model_id: string -- model; vocabulary ids mean nothing across models
// column token_id: int -- the driving token's vocabulary id
// column text: string? -- its text; null where text was not kept
// column traces: int -- traces in which it drives the predicted token
// column outputs: int -- predictions that it drives
// column share_mean: float -- mean over those predictions of its share of `direct` (its positions in one prompt added up), 0 to 1
// column share_max: float -- the largest of these, 0 to 1
// column share_sum: float -- their sum: what the rows are ranked by
// column score_mean: float -- mean signed contribution to those predictions, logits
// column example: string -- one such prediction's output_id (the first in alphabetical order)
// order: -share_sum, model_id, token_id, text
// rows: k
// seeks: Output.token_id or Output.text, then their tokens; the embedded engine scans that column of Output
// merge: group model_id, token_id, text; sum traces, outputs, share_sum; mean share_mean, score_mean by outputs; max share_max; min example
MATCH (o:Output)-[:OF]->(tr:Trace)
WHERE tr.ready_id IS NOT NULL
  AND o.token_id = $token_id                                                   // when $token_id
  AND o.text = $text                                                           // when $text
  AND tr.model_id = $model_id                                                  // when $model_id
  AND tr.method = $method                                                      // when $method
  AND tr.created_at >= $since                                                  // when $since
  AND tr.created_at < $until                                                   // when $until
  AND o.correct = $correct                                                     // when $correct
  AND EXISTS { MATCH (o)-[:EMITS]->(e:Token) WHERE e.origin = $origin }        // when $origin
  AND EXISTS { MATCH (x:Item)-[:OF]->(tr) WHERE x.item_id IS NOT NULL          // when $dataset or $split or $tag or $session_id
      AND x.dataset = $dataset                                                 // when $dataset
      AND x.split = $split                                                     // when $split
      AND $tag IN x.tags                                                       // when $tag
      AND x.session_id = $session_id                                           // when $session_id
  }                                                                            // when $dataset or $split or $tag or $session_id
MATCH (t:Token)-[i:INFLUENCES]->(o)
WHERE ($sink OR NOT t.sink)
  AND t.origin = $driver_origin                                                // when $driver_origin
WITH tr.model_id AS model_id, t.token_id AS token_id, t.text AS text, tr.trace_no AS trace_no, o.output_id AS output_id,
     sum(i.share) AS share, sum(i.score) AS score
WHERE share >= $min_share
RETURN model_id, token_id, text, count(DISTINCT trace_no) AS traces, count(*) AS outputs, avg(share) AS share_mean,
       max(share) AS share_max, sum(share) AS share_sum, avg(score) AS score_mean, min(output_id) AS example
ORDER BY share_sum DESC, model_id, token_id, text
LIMIT $k
