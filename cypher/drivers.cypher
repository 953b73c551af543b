// name: drivers
// question: Which earlier tokens drove this output token?
// param output_id: string? -- the explained prediction, `trace_id:pos:token_id[-foil_token_id]`
// param output_uid: int? -- the same by its key in this store, found without a scan
// needs: one of output_id, output_uid
// param k: int(1..) = 10 -- rows at most
// param by: string(drive|direct|total|score) = drive -- what to rank by: `drive`, |edges| into the explained position, into all positions, or |score|
// param sink: bool = true -- with attention sinks, which come last
// column pos: int -- position of the token, from 0
// column token_id: int -- its vocabulary id
// column text: string? -- its text; null where text was not kept
// column origin: string -- prompt, generated or given
// column sink: bool -- is it an attention sink
// column score: float -- signed contribution; over all tokens, with the Output's bias, they add up to `explained`, logits
// column drive: float -- mean of its shares of `direct`, `total` and |`removal`|, the last with its sign: a ranking
// column direct: float -- sum of |edge| from it into the explained position, logits
// column total: float -- sum of |edge| from it into all positions, logits
// column removal: float -- what hiding it from every later position would take away, to first order: an estimate, signed, logits
// column direct_value: float -- the part of `direct` that heads copied (VALUE edges), logits
// column direct_address: float -- the part of `direct` that drew attention to it (KEY edges; 0 for frozen), logits
// column total_value: float -- the VALUE part of `total`, logits
// column total_address: float -- the KEY part of `total` (0 for frozen), logits
// column share: float -- share of `direct`, sinks left out (0 for a sink), 0 to 1
// column rank_drive: int -- 1 is the largest `drive` (signed); sinks last
// column rank_direct: int -- 1 is the largest `direct`; sinks last
// column rank_total: int -- 1 is the largest `total`; sinks last
// column output_id: string -- the explained prediction
// order: sink, -|{by} but drive|, pos
// rows: k
// seeks: Output.output_id, or Output.uid; the embedded engine has no index on output_id and scans that one column
// merge: one store holds the Output; the others give no rows
MATCH (o:Output)-[:OF]->(tr:Trace)
WHERE tr.ready_id IS NOT NULL
  AND o.output_id = $output_id                                                 // when $output_id
  AND o.uid = $output_uid                                                      // when $output_uid
MATCH (t:Token)-[i:INFLUENCES]->(o)
WHERE $sink OR NOT t.sink
RETURN t.pos AS pos, t.token_id AS token_id, t.text AS text, t.origin AS origin, t.sink AS sink,
       i.score AS score, i.drive AS drive, i.direct AS direct, i.total AS total, i.removal AS removal,
       i.direct_value AS direct_value, i.direct_address AS direct_address,
       i.total_value AS total_value, i.total_address AS total_address, i.share AS share,
       i.rank_drive AS rank_drive, i.rank_direct AS rank_direct, i.rank_total AS rank_total, o.output_id AS output_id
ORDER BY sink, CASE $by WHEN 'drive' THEN i.drive WHEN 'direct' THEN i.direct WHEN 'total' THEN i.total ELSE abs(i.score) END DESC, pos
LIMIT $k
