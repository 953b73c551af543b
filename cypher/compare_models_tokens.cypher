// name: compare_models_tokens
// question: Which driving tokens did one model, or checkpoint, gain or lose against another on the same prompts?
// param a: string -- the first model's id
// param b: string -- the second model's id
// param step_a: int? -- only traces of the first at this training step
// param step_b: int? -- only traces of the second at this training step
// param method: string? -- only this attribution method
// param dataset: string? -- only prompts that an Item of this data set asked for
// param split: string? -- only prompts that an Item of this split asked for
// param tag: string? -- only traces that an Item with this tag asked for
// param session_id: string? -- only traces that an Item of this session asked for
// param since: int? -- only traces made at or after this time, milliseconds since 1970-01-01 UTC
// param until: int? -- only traces made before this time, milliseconds since 1970-01-01 UTC
// param correct: bool? -- only pairs in which the first's token is (true) or is not (false) the start of what was expected
// param origin: string(prompt|generated|given)? -- only pairs in which the first's token stands in the text and came from here
// param min_share: float(0..1) = 0.1 -- share from which a token counts as a driver
// param sink: bool = false -- with attention sinks too
// param k: int(1..) = 20 -- rows at most
// column prompt_hash: string -- the prompt
// column output_id_a: string -- the first's prediction
// column output_id_b: string -- the second's
// column said_a: string? -- the token that is explained there; null where text was not kept
// column said_b: string? -- the same of the second
// column pos: int -- position of the driving token
// column text: string? -- its text; null where text was not kept
// column share_a: float -- its share in the first's prediction, 0 to 1
// column share_b: float -- the same in the second's
// column difference: float -- share_b - share_a: ranked by its size
// column change: string -- gained or lost (crosses min_share), kept, or unused (below it in both)
// order: -|difference|, output_id_a, output_id_b, pos
// rows: k
// seeks: nothing; scans Trace (one row a trace) to join the two models' traces by prompt_hash
// merge: concatenate
MATCH (ta:Trace)
WHERE ta.model_id = $a AND ta.ready_id IS NOT NULL
  AND ta.checkpoint_step = $step_a                                             // when $step_a
  AND ta.method = $method                                                      // when $method
  AND ta.created_at >= $since                                                  // when $since
  AND ta.created_at < $until                                                   // when $until
  AND EXISTS { MATCH (x:Item)-[:OF]->(ta) WHERE x.item_id IS NOT NULL          // when $dataset or $split or $tag or $session_id
      AND x.dataset = $dataset                                                 // when $dataset
      AND x.split = $split                                                     // when $split
      AND $tag IN x.tags                                                       // when $tag
      AND x.session_id = $session_id                                           // when $session_id
  }                                                                            // when $dataset or $split or $tag or $session_id
MATCH (tb:Trace)
WHERE tb.prompt_hash = ta.prompt_hash AND tb.model_id = $b AND tb.ready_id IS NOT NULL AND tb.method = ta.method AND tb.uid <> ta.uid
  AND tb.checkpoint_step = $step_b                                             // when $step_b
MATCH (oa:Output)-[:OF]->(ta)
MATCH (ob:Output)-[:OF]->(tb)
WHERE ob.pos = oa.pos AND coalesce(oa.pos - oa.first_pos, -1) = coalesce(ob.pos - ob.first_pos, -1)
  AND oa.correct = $correct                                                    // when $correct
  AND EXISTS { MATCH (oa)-[:EMITS]->(e:Token) WHERE e.origin = $origin }       // when $origin
MATCH (t:Token)-[i:INFLUENCES]->(oa)
MATCH (u:Token)-[j:INFLUENCES]->(ob)
WHERE u.pos = t.pos AND u.token_id = t.token_id AND ($sink OR NOT t.sink)
RETURN ta.prompt_hash AS prompt_hash, oa.output_id AS output_id_a, ob.output_id AS output_id_b, oa.text AS said_a, ob.text AS said_b, t.pos AS pos, t.text AS text,
       i.share AS share_a, j.share AS share_b, 1.0 * j.share - i.share AS difference,
       CASE WHEN i.share < $min_share AND j.share >= $min_share THEN 'gained' WHEN i.share >= $min_share AND j.share < $min_share THEN 'lost'
            WHEN i.share >= $min_share THEN 'kept' ELSE 'unused' END AS change
ORDER BY abs(difference) DESC, output_id_a, output_id_b, pos
LIMIT $k
