// name: outputs_of_head
// question: In which predictions does this head carry most influence?
// param layer: int(0..) -- layer, from 0
// param head: int(0..) -- query head, from 0
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
// param min_share: float(0..1) = 0 -- only predictions of which the head has at least this share
// param sink: bool? -- only predictions in which its largest edge comes from an attention sink (true), or does not (false)
// param k: int(1..) = 20 -- rows at most
// column trace_id: string -- the trace
// column output_id: string -- the prediction
// column model_id: string -- model
// column pos: int -- position whose logits were read
// column token_id: int -- the predicted token
// column text: string? -- its text; null where text was not kept
// column prob: float -- its probability
// column correct: bool? -- is it the start of what was expected
// column share: float -- the head's share of this prediction, 0 to 1
// column relevance: float -- signed sum over positions of what the head writes, logits
// column top_source_pos: int -- source of its largest |VALUE| edge, a sink only where it has no other
// column top_query_pos: int -- query position of that edge
// column induction: bool -- does that source follow an earlier copy of the query token
// column trace_text: string? -- the trace's whole text; null where text was not kept
// order: -share, output_id
// rows: k
// seeks: HeadSummary.(model_id, layer, head) where a model is given; else scans HeadSummary (64 rows or fewer a prediction)
// merge: concatenate
MATCH (h:HeadSummary)
WHERE h.layer = $layer AND h.head = $head AND h.share >= $min_share
  AND h.model_id = $model_id                                                   // when $model_id
MATCH (h)-[:OF]->(o:Output)-[:OF]->(tr:Trace)
WHERE tr.ready_id IS NOT NULL
  AND o.token_id = $token_id                                                   // when $token_id
  AND o.text = $text                                                           // when $text
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
MATCH (s:Token)-[:INFLUENCES]->(o) WHERE s.pos = h.top_source_pos AND s.sink = $sink // when $sink
RETURN tr.trace_id AS trace_id, o.output_id AS output_id, tr.model_id AS model_id, o.pos AS pos, o.token_id AS token_id, o.text AS text,
       o.prob AS prob, o.correct AS correct, h.share AS share, h.relevance AS relevance, h.top_source_pos AS top_source_pos,
       h.top_query_pos AS top_query_pos, h.induction AS induction, tr.text AS trace_text
ORDER BY share DESC, output_id
LIMIT $k
