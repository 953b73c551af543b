// name: unverified
// question: Which top drivers of a prediction were never knocked out?
// param output_id: string? -- only this prediction
// param trace_id: string? -- only this trace
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
// param kind: string(column|mean_embedding) = column -- the knockout that is missing
// param top: int(1..) = 5 -- drivers of each prediction that count, by rank_drive: those that `tracestore verify` takes first
// param min_share: float(0..1) = 0 -- only drivers with at least this share
// param sink: bool = false -- with attention sinks too
// param k: int(1..) = 20 -- rows at most
// column output_id: string -- the prediction: what `tracestore verify` takes
// column output_text: string? -- its text; null where text was not kept
// column pos: int -- position of the driver
// column token_id: int -- its vocabulary id
// column text: string? -- its text; null where text was not kept
// column score: float -- signed contribution, logits
// column drive: float -- mean of its shares of `direct`, `total` and |`removal`|, the last with its sign: a ranking
// column direct: float -- sum of |edge| from it into the explained position, logits
// column share: float -- share of `direct`, sinks left out, 0 to 1
// column rank_drive: int -- 1 is the largest `drive` (signed); sinks last
// column rank_direct: int -- 1 is the largest `direct`; sinks last
// order: -drive, output_id, pos
// rows: k
// seeks: Output.output_id or Trace.trace_id; without them scans INFLUENCES of Tokens. The explained position itself is left out
// merge: concatenate
MATCH (o:Output)-[:OF]->(tr:Trace)
WHERE tr.ready_id IS NOT NULL
  AND o.output_id = $output_id                                                 // when $output_id
  AND tr.trace_id = $trace_id                                                  // when $trace_id
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
MATCH (t:Token)-[i:INFLUENCES]->(o)
WHERE i.rank_drive <= $top AND i.share >= $min_share AND t.pos < o.pos AND ($sink OR NOT t.sink)
OPTIONAL MATCH (t)-[r:KNOCKOUT]->(o)
WITH o, t, i.score AS score, i.drive AS drive, i.direct AS direct, i.share AS share, i.rank_drive AS rank_drive,
     i.rank_direct AS rank_direct, sum(CASE WHEN r.kind = $kind THEN 1 ELSE 0 END) AS tried
WHERE tried = 0
RETURN o.output_id AS output_id, o.text AS output_text, t.pos AS pos, t.token_id AS token_id, t.text AS text, score, drive, direct,
       share, rank_drive, rank_direct
ORDER BY drive DESC, output_id, pos
LIMIT $k
