// name: span_drivers
// question: Which documents, messages, tool results or steps drove this output?
// param output_id: string? -- the explained prediction, `trace_id:pos:token_id[-foil_token_id]`
// param output_uid: int? -- the same by its key in this store, found without a scan
// needs: one of output_id, output_uid
// param kind: string(role|turn|document|tool_call|tool_result|step|evidence|answer)? -- only spans of this kind
// param own: bool = false -- with spans that reach over the explained token itself: they count with what stands before it
// param k: int(1..) = 20 -- rows at most
// column kind: string -- role, turn, document, tool_call, tool_result, step, evidence or answer
// column ref: string? -- its name, such as the document's id
// column ordinal: int -- place among the spans of its kind, from 0
// column first_pos: int -- position of its first token
// column last_pos: int -- position of its last token
// column own: bool -- does it reach over the explained token itself
// column score: float -- signed contribution of its tokens, logits
// column direct: float -- sum of |edge| from them into the explained position, with attention sinks, logits
// column total: float -- sum of |edge| from them into all positions, logits
// column share: float -- share of `direct`, sinks left out, 0 to 1; spans overlap, so the shares of different kinds do not add up
// column rank_direct: int -- 1 is the largest `direct` among all spans of the prediction, sinks left out
// column text: string? -- its text; null where text was not kept
// column output_id: string -- the explained prediction
// order: -share, kind, ordinal
// rows: k
// seeks: Output.output_id, or Output.uid; the embedded engine has no index on output_id and scans that one column
// merge: one store holds the Output; the others give no rows
MATCH (o:Output)-[:OF]->(tr:Trace)
WHERE tr.ready_id IS NOT NULL
  AND o.output_id = $output_id                                                 // when $output_id
  AND o.uid = $output_uid                                                      // when $output_uid
MATCH (s:Span)-[i:INFLUENCES]->(o)
WHERE ($own OR s.last_pos <= coalesce(o.first_pos, o.pos))
  AND s.kind = $kind                                                           // when $kind
RETURN s.kind AS kind, s.ref AS ref, s.ordinal AS ordinal, s.first_pos AS first_pos, s.last_pos AS last_pos,
       s.last_pos > coalesce(o.first_pos, o.pos) AS own, i.score AS score, i.direct AS direct, i.total AS total, i.share AS share,
       i.rank_direct AS rank_direct, s.text AS text, o.output_id AS output_id
ORDER BY share DESC, kind, ordinal
LIMIT $k
