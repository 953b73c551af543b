// name: unverified
// question: Which top drivers of a prediction were never knocked out?
// param output_id: string? -- only this prediction
// param trace_id: string? -- only this trace
// param model_id: string? -- only this model
// param method: string? -- only this attribution method
// param kind: string(column|mean_embedding) = column -- the knockout that is missing
// param top: int(1..) = 5 -- drivers of each prediction that count, by rank_direct
// param k: int(1..) = 20 -- rows at most
// column output_id: string -- the prediction: what `tracestore verify` takes
// column output_text: string? -- its text; null where text was not kept
// column pos: int -- position of the driver
// column token_id: int -- its vocabulary id
// column text: string? -- its text; null where text was not kept
// column score: float -- signed contribution, logits
// column direct: float -- sum of |edge| from it into the explained position, logits
// column share: float -- share of `direct`, sinks left out, 0 to 1
// column rank_direct: int -- 1 is the largest `direct`; sinks last
// order: -share, output_id, pos
// rows: k
// seeks: Output.output_id or Trace.trace_id; without them scans INFLUENCES of Tokens. The explained position itself and sinks are left out
// merge: concatenate
MATCH (o:Output)-[:OF]->(tr:Trace)
WHERE tr.ready_id IS NOT NULL
  AND o.output_id = $output_id                                                 // when $output_id
  AND tr.trace_id = $trace_id                                                  // when $trace_id
  AND tr.model_id = $model_id                                                  // when $model_id
  AND tr.method = $method                                                      // when $method
MATCH (t:Token)-[i:INFLUENCES]->(o)
WHERE i.rank_direct <= $top AND t.pos < o.pos AND NOT t.sink
OPTIONAL MATCH (t)-[r:KNOCKOUT]->(o)
WITH o, t, i.score AS score, i.direct AS direct, i.share AS share, i.rank_direct AS rank_direct,
     sum(CASE WHEN r.kind = $kind THEN 1 ELSE 0 END) AS tried
WHERE tried = 0
RETURN o.output_id AS output_id, o.text AS output_text, t.pos AS pos, t.token_id AS token_id, t.text AS text, score, direct, share,
       rank_direct
ORDER BY share DESC, output_id, pos
LIMIT $k
