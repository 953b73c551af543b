// name: knockouts
// question: What did removing tokens, heads, edges, motifs or spans do to this output, when it was tried on the model?
// param output_id: string? -- the explained prediction, `trace_id:pos:token_id[-foil_token_id]`
// param output_uid: int? -- the same by its key in this store, found without a scan
// needs: one of output_id, output_uid
// param kind: string(column|edge|head|motif|mean_embedding)? -- only knockouts of this kind
// param k: int(1..) = 100 -- rows at most
// column kind: string -- column, edge, head, motif or mean_embedding
// column pos: int? -- position of the token that was removed, where it was a token
// column first_pos: int? -- first position of the span that was removed, where it was a span
// column last_pos: int? -- its last position
// column text: string? -- text of that token or span; null where text was not kept
// column motif: string? -- motif whose heads were removed, where it was a motif
// column layer: int? -- layer, where it was a head or one edge of a head
// column head: int? -- head, where it was a head or one edge of a head
// column query_pos: int? -- query position, where it was an edge
// column score: float? -- what the trace says that the source contributes, logits; the trace predicts an effect of -score
// column effect: float -- measured: `explained` without the source less `explained` with it, logits
// column effect_logp: float -- the same for the token's log probability, nats
// column created_at: int -- when it was measured, milliseconds since 1970-01-01 UTC: the newest of a source counts
// column output_id: string -- the explained prediction
// order: -created_at, kind, pos, first_pos, motif, layer, head, query_pos, last_pos
// rows: k
// seeks: Output.output_id, or Output.uid; the embedded engine has no index on output_id and scans that one column
// merge: one store holds the Output; the others give no rows
MATCH (o:Output)-[:OF]->(tr:Trace)
WHERE tr.ready_id IS NOT NULL
  AND o.output_id = $output_id                                                 // when $output_id
  AND o.uid = $output_uid                                                      // when $output_uid
WITH DISTINCT o
MATCH (s)-[r:KNOCKOUT]->(o)
WHERE r.created_at IS NOT NULL
  AND r.kind = $kind                                                           // when $kind
RETURN r.kind AS kind, s.pos AS pos, s.first_pos AS first_pos, s.last_pos AS last_pos, s.text AS text, s.motif AS motif,
       r.layer AS layer, r.head AS head, r.query_pos AS query_pos, r.estimate AS score, r.effect AS effect,
       r.effect_logp AS effect_logp, r.created_at AS created_at, o.output_id AS output_id
ORDER BY created_at DESC, kind, pos, first_pos, motif, layer, head, query_pos, last_pos
LIMIT $k
