// name: thought_chain
// question: By which chain of tokens, through what the model said before, did this output come about?
// param output_id: string? -- the explained prediction, `trace_id:pos:token_id[-foil_token_id]`
// param output_uid: int? -- the same by its key in this store, found without a scan
// needs: one of output_id, output_uid
// param width: int(1..8) = 3 -- drivers followed at every output, by `direct`
// param hops: int(0..6) = 4 -- generated tokens passed at most on the way back
// param k: int(1..) = 100 -- rows at most
// column hop: int -- generated tokens between this link and the output (by the shortest way)
// column pos: int -- position of the driving token
// column token_id: int -- its vocabulary id
// column text: string? -- its text; null where text was not kept
// column origin: string -- prompt, generated or given
// column drives_pos: int -- position of the prediction that it drives
// column drives_text: string? -- the predicted token's text; null where text was not kept
// column drives_output_id: string -- that prediction
// column share: float -- the token's share in it (of `direct`, sinks left out), 0 to 1
// column score: float -- its signed contribution to it, logits
// column carried: float -- product of the shares along the way to the output, this one included, summed over ways, 0 to 1
// column onward: bool -- was the driving token itself explained, so that the chain goes on
// column output_id: string -- the explained prediction
// order: hop, -carried, drives_output_id, pos
// rows: k
// seeks: Output.output_id, or Output.uid; the embedded engine has no index on output_id and scans that one column
// merge: one store holds the Output; the others give no rows
MATCH (o:Output)-[:OF]->(tr:Trace)
WHERE tr.ready_id IS NOT NULL
  AND o.output_id = $output_id                                                 // when $output_id
  AND o.uid = $output_uid                                                      // when $output_uid
MATCH (o)<-[rs:INFLUENCES|EMITS*0..12 (r, n | WHERE (r.rank_direct IS NULL OR r.rank_direct <= $width) AND n.first_pos IS NULL)]-(y:Output)
WHERE (y.first_pos IS NULL OR y.uid = o.uid) AND length(rs) <= 2 * $hops
WITH o.output_id AS output_id, y, min(length(rs)) / 2 AS hop,
     sum(CASE length(rs) WHEN 0 THEN 1.0
         ELSE list_product(list_transform(properties(rels(rs), 'share'), x -> CASE WHEN x IS NULL THEN 1.0 ELSE 1.0 * x END)) END) AS weight
MATCH (t:Token)-[i:INFLUENCES]->(y)
WHERE i.rank_direct <= $width
RETURN hop, t.pos AS pos, t.token_id AS token_id, t.text AS text, t.origin AS origin,
       y.pos AS drives_pos, y.text AS drives_text, y.output_id AS drives_output_id,
       i.share AS share, i.score AS score, weight * i.share AS carried,
       EXISTS { MATCH (e:Output)-[:EMITS]->(t) WHERE e.first_pos IS NULL } AS onward, output_id
ORDER BY hop, carried DESC, drives_output_id, pos
LIMIT $k
