// name: driver_heads
// question: Which heads carried the influence on this output token, and between which positions?
// param output_id: string? -- the explained prediction, `trace_id:pos:token_id[-foil_token_id]`
// param output_uid: int? -- the same by its key in this store, found without a scan
// needs: one of output_id, output_uid
// param k: int(1..) = 10 -- rows at most
// column layer: int -- layer, from 0
// column head: int -- query head, from 0
// column relevance: float -- signed sum over positions of what the head writes, logits
// column abs_relevance: float -- sum of |weight| of its VALUE edges, logits
// column share: float -- abs_relevance over that of all heads, 0 to 1
// column top_source_pos: int -- source of its largest |VALUE| edge, a sink only where it has no other
// column top_source_text: string? -- that token's text; null where text was not kept
// column top_query_pos: int -- query position of that edge
// column top_query_text: string? -- that token's text; null where text was not kept
// column offset: int -- top_query_pos - top_source_pos
// column induction: bool -- does that source follow an earlier copy of the query token
// column output_id: string -- the explained prediction
// order: -share, layer, head
// rows: k
// seeks: Output.output_id, or Output.uid; the embedded engine has no index on output_id and scans that one column
// merge: one store holds the Output; the others give no rows
MATCH (o:Output)-[:OF]->(tr:Trace)
WHERE tr.ready_id IS NOT NULL
  AND o.output_id = $output_id                                                 // when $output_id
  AND o.uid = $output_uid                                                      // when $output_uid
MATCH (h:HeadSummary)-[:OF]->(o)
WITH o, h ORDER BY h.share DESC, h.layer, h.head LIMIT $k
OPTIONAL MATCH (s:Token)-[:INFLUENCES]->(o) WHERE s.pos = h.top_source_pos
OPTIONAL MATCH (q:Token)-[:INFLUENCES]->(o) WHERE q.pos = h.top_query_pos
RETURN h.layer AS layer, h.head AS head, h.relevance AS relevance, h.abs_relevance AS abs_relevance, h.share AS share,
       h.top_source_pos AS top_source_pos, s.text AS top_source_text, h.top_query_pos AS top_query_pos, q.text AS top_query_text,
       h.offset AS offset, h.induction AS induction, o.output_id AS output_id
ORDER BY share DESC, layer, head
