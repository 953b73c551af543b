// name: driver_paths
// question: By which paths, from which tokens and through which components, did this output token come about?
// param output_id: string? -- the explained prediction, `trace_id:pos:token_id[-foil_token_id]`
// param output_uid: int? -- the same by its key in this store, found without a scan
// needs: one of output_id, output_uid
// param k: int(1..) = 10 -- rows at most
// column rank: int -- 1 is the largest |weight|
// column weight: float -- exact signed contribution of the whole path, logits
// column share: float -- |weight| over that of the stored paths, 0 to 1
// column source_pos: int -- position that the path starts at
// column source_text: string? -- that token's text; null where text was not kept
// column motif: string -- the path without positions; one that begins with bias comes from no token
// column hops: string -- what wrote, and at which position: emb@4>L0.mlp@4>L23.h4:V@5>out@5
// column output_id: string -- the explained prediction
// order: rank
// rows: k
// seeks: Output.output_id, or Output.uid; the embedded engine has no index on output_id and scans that one column
// merge: one store holds the Output; the others give no rows
MATCH (o:Output)-[:OF]->(tr:Trace)
WHERE tr.ready_id IS NOT NULL
  AND o.output_id = $output_id                                                 // when $output_id
  AND o.uid = $output_uid                                                      // when $output_uid
MATCH (p:Path)-[:OF]->(o)
WITH o, p ORDER BY p.rank LIMIT $k
OPTIONAL MATCH (s:Token)-[:INFLUENCES]->(o) WHERE s.pos = p.source_pos
RETURN p.rank AS rank, p.weight AS weight, p.share AS share, p.source_pos AS source_pos, s.text AS source_text, p.motif AS motif,
       list_to_string('>', p.hops) AS hops, o.output_id AS output_id
ORDER BY rank
