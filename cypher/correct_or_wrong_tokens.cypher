// name: correct_or_wrong_tokens
// question: Which earlier tokens drive right answers more than wrong ones, or less?
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
// param origin: string(prompt|generated|given)? -- only Outputs whose token stands in the text and came from here
// param min_share: float(0..1) = 0 -- count a token in a prediction only if its share of it is at least this
// param sink: bool = false -- with attention sinks too
// param k: int(1..) = 20 -- rows at most
// without correct: right answers are compared with wrong ones
// column model_id: string -- model
// column token_id: int -- the driving token's vocabulary id
// column text: string? -- its text; null where text was not kept
// column share_correct: float -- mean share over the right answers (0 where the token does not occur), 0 to 1
// column share_wrong: float -- the same over the wrong answers
// column difference: float -- share_correct - share_wrong: ranked by its size
// column in_correct: int -- right answers in whose text it occurs (and holds min_share)
// column in_wrong: int -- wrong answers in whose text it occurs (and holds min_share)
// column correct: int -- right answers looked at
// column wrong: int -- wrong answers looked at
// order: -|difference|, model_id, token_id, text
// rows: k
// seeks: nothing unless a token is given; scans Output and every INFLUENCES edge of those that have an expected answer
// merge: group model_id, token_id, text; mean share_correct by correct; mean share_wrong by wrong; sum in_correct, in_wrong, correct, wrong; difference again
MATCH (o:Output)-[:OF]->(tr:Trace)
WHERE tr.ready_id IS NOT NULL AND o.correct IS NOT NULL
  AND o.token_id = $token_id                                                   // when $token_id
  AND o.text = $text                                                           // when $text
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
WITH tr.model_id AS model_id, sum(CASE WHEN o.correct THEN 1 ELSE 0 END) AS correct, sum(CASE WHEN o.correct THEN 0 ELSE 1 END) AS wrong
WHERE correct > 0 AND wrong > 0
MATCH (o:Output)-[:OF]->(tr:Trace)
WHERE tr.ready_id IS NOT NULL AND o.correct IS NOT NULL AND tr.model_id = model_id
  AND o.token_id = $token_id                                                   // when $token_id
  AND o.text = $text                                                           // when $text
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
MATCH (t:Token)-[i:INFLUENCES]->(o)
WHERE $sink OR NOT t.sink
WITH model_id, correct, wrong, t.token_id AS token_id, t.text AS text, o.output_id AS output_id, o.correct AS is_correct,
     sum(i.share) AS share
WHERE share >= $min_share
WITH model_id, correct, wrong, token_id, text,
     sum(CASE WHEN is_correct THEN share ELSE 0.0 END) / correct AS share_correct,
     sum(CASE WHEN is_correct THEN 0.0 ELSE share END) / wrong AS share_wrong,
     sum(CASE WHEN is_correct THEN 1 ELSE 0 END) AS in_correct, sum(CASE WHEN is_correct THEN 0 ELSE 1 END) AS in_wrong
RETURN model_id, token_id, text, share_correct, share_wrong, share_correct - share_wrong AS difference,
       in_correct, in_wrong, correct, wrong
ORDER BY abs(share_correct - share_wrong) DESC, model_id, token_id, text
LIMIT $k
