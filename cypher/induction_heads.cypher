// name: induction_heads
// question: Which heads act as induction heads (look at the token after an earlier copy of the current one)?
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
// param min_share: float(0..1) = 0 -- count a prediction for a head only if the head's share of it is at least this
// param sink: bool? -- only heads whose largest edge comes from an attention sink (true), or does not (false)
// param min_outputs: int(1..) = 1 -- only heads that did so in this many predictions
// param k: int(1..) = 20 -- rows at most
// column model_id: string -- model
// column layer: int -- layer, from 0
// column head: int -- query head, from 0
// column outputs: int -- predictions in which the head is among the 64 largest (and holds min_share)
// column induction_outputs: int -- of them, those where its largest edge comes from the token after an earlier copy of the query token
// column induction_rate: float -- induction_outputs / outputs, 0 to 1
// column share_mean: float -- mean of its share over the induction predictions, 0 to 1
// column share_sum: float -- their sum: what the rows are ranked by
// column offset_mean: float -- mean distance from source to query over the induction predictions, tokens
// order: -share_sum, model_id, layer, head
// rows: k
// seeks: nothing; scans HeadSummary (64 rows or fewer a prediction), never the edges
// merge: group model_id, layer, head; sum outputs, induction_outputs, share_sum; mean share_mean, offset_mean by induction_outputs; mean induction_rate by outputs
MATCH (o:Output)-[:OF]->(tr:Trace)
WHERE tr.ready_id IS NOT NULL
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
MATCH (h:HeadSummary)-[:OF]->(o)
WHERE h.share >= $min_share
MATCH (s:Token)-[:INFLUENCES]->(o) WHERE s.pos = h.top_source_pos AND s.sink = $sink // when $sink
WITH tr.model_id AS model_id, h.layer AS layer, h.head AS head, count(*) AS outputs,
     sum(CASE WHEN h.induction THEN 1 ELSE 0 END) AS induction_outputs,
     sum(CASE WHEN h.induction THEN h.share ELSE 0.0 END) AS share_sum,
     sum(CASE WHEN h.induction THEN 1.0 * h.offset ELSE 0.0 END) AS offset_sum
WHERE induction_outputs >= $min_outputs
RETURN model_id, layer, head, outputs, induction_outputs, 1.0 * induction_outputs / outputs AS induction_rate,
       share_sum / induction_outputs AS share_mean, share_sum, offset_sum / induction_outputs AS offset_mean
ORDER BY share_sum DESC, model_id, layer, head
LIMIT $k
