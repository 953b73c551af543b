// name: outputs_driven_by
// question: Which predictions does this token drive, over all prompts?
// param token_id: int? -- the driving token's vocabulary id
// param text: string? -- the driving token's text, leading space included
// needs: one of token_id, text
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
// param driver_origin: string(prompt|generated|given)? -- only driving tokens that came from here
// param min_share: float(0..1) = 0 -- only where its share is at least this
// param sink: bool = false -- with attention sinks too
// param k: int(1..) = 20 -- rows at most
// column trace_id: string -- the trace
// column output_id: string -- the prediction
// column output_pos: int -- position whose logits were read
// column output_token_id: int -- the predicted token
// column output_text: string? -- its text; null where text was not kept
// column prob: float -- its probability
// column correct: bool? -- is it the start of what was expected
// column pos: int -- position of the driving token
// column token_id: int -- its vocabulary id
// column text: string? -- its text; null where text was not kept
// column score: float -- signed contribution, logits
// column direct: float -- sum of |edge| into the explained position, logits
// column share: float -- share of `direct`, sinks left out (0 for a sink), 0 to 1
// column rank_direct: int -- its rank among the drivers of that prediction
// order: -share, output_id, pos
// rows: k
// seeks: Token.token_id or Token.text; the embedded engine scans that column of Token (about 77 ms a million tokens by text, less by token_id)
// merge: concatenate
MATCH (t:Token)-[i:INFLUENCES]->(o:Output)
WHERE ($sink OR NOT t.sink)
  AND t.token_id = $token_id                                                   // when $token_id
  AND t.text = $text                                                           // when $text
  AND t.origin = $driver_origin                                                // when $driver_origin
  AND o.correct = $correct                                                     // when $correct
WITH t, i, o
WHERE i.share >= $min_share
MATCH (o)-[:OF]->(tr:Trace)
WHERE tr.ready_id IS NOT NULL
  AND tr.model_id = $model_id                                                  // when $model_id
  AND tr.method = $method                                                      // when $method
  AND tr.created_at >= $since                                                  // when $since
  AND tr.created_at < $until                                                   // when $until
  AND EXISTS { MATCH (o)-[:EMITS]->(e:Token) WHERE e.origin = $origin }        // when $origin
  AND EXISTS { MATCH (x:Item)-[:OF]->(tr) WHERE x.item_id IS NOT NULL          // when $dataset or $split or $tag or $session_id
      AND x.dataset = $dataset                                                 // when $dataset
      AND x.split = $split                                                     // when $split
      AND $tag IN x.tags                                                       // when $tag
      AND x.session_id = $session_id                                           // when $session_id
  }                                                                            // when $dataset or $split or $tag or $session_id
RETURN tr.trace_id AS trace_id, o.output_id AS output_id, o.pos AS output_pos, o.token_id AS output_token_id, o.text AS output_text,
       o.prob AS prob, o.correct AS correct, t.pos AS pos, t.token_id AS token_id, t.text AS text,
       i.score AS score, i.direct AS direct, i.share AS share, i.rank_direct AS rank_direct
ORDER BY share DESC, output_id, pos
LIMIT $k
