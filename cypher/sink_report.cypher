// name: sink_report
// question: How much of what drives predictions goes to attention sinks, by model and method?
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
// param min_share: float(0..1) = 0 -- only predictions with at least this share of `direct` on sinks
// param k: int(1..) = 20 -- rows at most
// without sink: it is about nothing else
// column model_id: string -- model
// column method: string -- attribution method
// column outputs: int -- predictions that a sink stands before
// column sink_mass_mean: float -- mean share of `direct` on sinks, 0 to 1
// column sink_mass_max: float -- the largest of these, 0 to 1
// column score_mean: float -- mean signed contribution of sinks, logits
// column direct_mean: float -- mean of their attention-edge mass into the explained position, logits
// order: model_id, method
// rows: k
// seeks: nothing; scans Output, then reads the sinks' INFLUENCES
// merge: group model_id, method; sum outputs; mean sink_mass_mean, score_mean, direct_mean by outputs; max sink_mass_max
MATCH (o:Output)-[:OF]->(tr:Trace)
WHERE tr.ready_id IS NOT NULL AND o.sink_mass >= $min_share
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
WHERE t.sink
WITH tr.model_id AS model_id, tr.method AS method, o.uid AS output, o.sink_mass AS sink_mass, sum(i.score) AS score,
     sum(i.direct) AS direct
RETURN model_id, method, count(*) AS outputs, avg(sink_mass) AS sink_mass_mean, max(sink_mass) AS sink_mass_max,
       avg(score) AS score_mean, avg(direct) AS direct_mean
ORDER BY model_id, method
LIMIT $k
