// name: compare_variants_tokens
// question: Which driving tokens change between one variant of an item and the other (clean and corrupt)?
// param a: string -- the first variant
// param b: string -- the second variant
// param model_id: string? -- only this model
// param method: string? -- only this attribution method
// param dataset: string? -- only Items of this data set
// param split: string? -- only Items of this split
// param tag: string? -- only traces that an Item with this tag asked for
// param session_id: string? -- only traces that an Item of this session asked for
// param since: int? -- only traces made at or after this time, milliseconds since 1970-01-01 UTC
// param until: int? -- only traces made before this time, milliseconds since 1970-01-01 UTC
// param correct: bool? -- only pairs in which the first's token is (true) or is not (false) the start of what was expected
// param origin: string(prompt|generated|given)? -- only pairs in which the first's token stands in the text and came from here
// param min_share: float(0..1) = 0.1 -- share from which a token counts as a driver
// param sink: bool = false -- with attention sinks too
// param k: int(1..) = 20 -- rows at most
// column item_id: string -- the item
// column output_id_a: string -- the first's prediction
// column output_id_b: string -- the second's
// column said_a: string? -- the token that is explained there; null where text was not kept
// column said_b: string? -- the same of the second
// column pos: int -- position of the driving token in the first
// column text_a: string? -- its text there; null where text was not kept
// column text_b: string? -- the text as far from the end of the second prompt
// column share_a: float -- its share in the first's prediction, 0 to 1
// column share_b: float -- the same in the second's
// column difference: float -- share_b - share_a: ranked by its size
// column change: string -- gained or lost (crosses min_share), kept, or unused (below it in both)
// order: -|difference|, output_id_a, output_id_b, pos
// rows: k
// seeks: nothing; scans Item
// merge: concatenate
MATCH (ia:Item)-[:OF]->(ta:Trace)
WHERE ia.variant = $a AND ta.ready_id IS NOT NULL
  AND ta.model_id = $model_id                                                  // when $model_id
  AND ta.method = $method                                                      // when $method
  AND ta.created_at >= $since                                                  // when $since
  AND ta.created_at < $until                                                   // when $until
  AND ia.dataset = $dataset                                                    // when $dataset
  AND ia.split = $split                                                        // when $split
  AND $tag IN ia.tags                                                          // when $tag
  AND ia.session_id = $session_id                                              // when $session_id
MATCH (ib:Item)-[:OF]->(tb:Trace)
WHERE ib.item_id = ia.item_id AND ib.variant = $b AND tb.ready_id IS NOT NULL
  AND tb.model_fingerprint = ta.model_fingerprint AND tb.method = ta.method AND tb.uid <> ta.uid
WITH DISTINCT ta, tb, ia.item_id AS item_id
MATCH (oa:Output)-[:OF]->(ta)
MATCH (ob:Output)-[:OF]->(tb)
WHERE ob.pos - tb.n_prompt_tokens = oa.pos - ta.n_prompt_tokens AND coalesce(oa.pos - oa.first_pos, -1) = coalesce(ob.pos - ob.first_pos, -1)
  AND oa.correct = $correct                                                    // when $correct
  AND EXISTS { MATCH (oa)-[:EMITS]->(e:Token) WHERE e.origin = $origin }       // when $origin
MATCH (t:Token)-[i:INFLUENCES]->(oa)
MATCH (u:Token)-[j:INFLUENCES]->(ob)
WHERE u.pos - tb.n_prompt_tokens = t.pos - ta.n_prompt_tokens AND ($sink OR NOT t.sink)
RETURN item_id, oa.output_id AS output_id_a, ob.output_id AS output_id_b, oa.text AS said_a, ob.text AS said_b, t.pos AS pos, t.text AS text_a, u.text AS text_b,
       i.share AS share_a, j.share AS share_b, 1.0 * j.share - i.share AS difference,
       CASE WHEN i.share < $min_share AND j.share >= $min_share THEN 'gained' WHEN i.share >= $min_share AND j.share < $min_share THEN 'lost'
            WHEN i.share >= $min_share THEN 'kept' ELSE 'unused' END AS change
ORDER BY abs(difference) DESC, output_id_a, output_id_b, pos
LIMIT $k
