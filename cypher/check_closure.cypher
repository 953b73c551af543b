// name: check_closure
// question: For which predictions do the tokens' scores and the bias not add up to what was explained?
// param trace_id: string? -- only this trace
// param output_id: string? -- only this prediction
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
// param tolerance: float(0..) = 0.0001 -- largest error that passes, relative to max(|explained|, logit_std)
// param k: int(1..) = 20 -- rows at most
// without min_share: the sum must hold every token
// without sink: the sum must hold every token
// column trace_id: string -- the trace
// column output_id: string -- the prediction
// column tokens: int -- tokens that influence it
// column score_sum: float -- sum of their scores, logits
// column bias: float -- sum of all bias contributions, logits
// column explained: float -- what they should add up to, logits
// column error: float -- |score_sum + bias - explained| / max(|explained|, logit_std)
// column closure: float -- the same as the extractor measured it, before rounding
// order: -error, output_id
// rows: k
// seeks: Trace.trace_id or Output.output_id; without them scans every INFLUENCES edge. No row means that all is well
// merge: concatenate
MATCH (o:Output)-[:OF]->(tr:Trace)
WHERE tr.ready_id IS NOT NULL
  AND tr.trace_id = $trace_id                                                  // when $trace_id
  AND o.output_id = $output_id                                                 // when $output_id
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
OPTIONAL MATCH (t:Token)-[i:INFLUENCES]->(o)
WITH tr, o, count(t) AS tokens, coalesce(sum(i.score), 0.0) AS score_sum
WITH tr, o, tokens, score_sum, abs(score_sum + o.bias - o.explained)
     / CASE WHEN abs(o.explained) > o.logit_std THEN abs(o.explained) ELSE o.logit_std END AS error
WHERE error > $tolerance
RETURN tr.trace_id AS trace_id, o.output_id AS output_id, tokens, score_sum, o.bias AS bias, o.explained AS explained, error,
       o.closure AS closure
ORDER BY error DESC, output_id
LIMIT $k
