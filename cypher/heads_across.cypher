// name: heads_across
// question: Which heads carry most influence, over all predictions (or those of one token)?
// param token_id: int? -- only predictions of this vocabulary id
// param text: string? -- only predictions of this text, leading space included
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
// param k: int(1..) = 20 -- rows at most
// column model_id: string -- model
// column layer: int -- layer, from 0
// column head: int -- query head, from 0
// column outputs: int -- predictions in which it is among the 64 largest heads (and holds min_share)
// column share_mean: float -- mean of its share over those predictions, 0 to 1
// column share_max: float -- the largest of these, 0 to 1
// column share_sum: float -- their sum: what the rows are ranked by
// column relevance_mean: float -- mean of its signed relevance over those predictions, logits
// column offset_mean: float -- mean distance from the source to the query of its largest edge, tokens
// column induction_rate: float -- share of those predictions where that source follows an earlier copy of the query token, 0 to 1
// order: -share_sum, model_id, layer, head
// rows: k
// seeks: nothing unless a token is given; scans HeadSummary (64 rows or fewer a prediction), never the edges
// merge: group model_id, layer, head; sum outputs, share_sum; mean share_mean, relevance_mean, offset_mean, induction_rate by outputs; max share_max
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
MATCH (h:HeadSummary)-[:OF]->(o)
WHERE h.share >= $min_share
MATCH (s:Token)-[:INFLUENCES]->(o) WHERE s.pos = h.top_source_pos AND s.sink = $sink // when $sink
RETURN tr.model_id AS model_id, h.layer AS layer, h.head AS head, count(*) AS outputs, avg(h.share) AS share_mean,
       max(h.share) AS share_max, sum(h.share) AS share_sum, avg(h.relevance) AS relevance_mean, avg(h.offset) AS offset_mean,
       avg(CASE WHEN h.induction THEN 1.0 ELSE 0.0 END) AS induction_rate
ORDER BY share_sum DESC, model_id, layer, head
LIMIT $k
