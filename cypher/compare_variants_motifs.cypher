// name: compare_variants_motifs
// question: Which motifs of exact paths does a model use more, or less, on one variant of the items than on the other (clean and corrupt)?
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
// param min_share: float(0..1) = 0.02 -- mean share from which a motif counts as used
// param sink: bool? -- only paths that start at an attention sink (true), or do not (false)
// param k: int(1..) = 20 -- rows at most
// column motif: string -- components of a path in order, its positions left out
// column share_a: float -- mean over the first's predictions of its share of |weight| of the stored paths (0 where none is stored), 0 to 1
// column share_b: float -- the same over the second's
// column difference: float -- share_b - share_a: ranked by its size
// column weight_a: float -- mean over the first's predictions of its exact signed contribution (0 where none is stored), logits
// column weight_b: float -- the same over the second's
// column change: string -- gained or lost (crosses min_share), kept, or unused (below it in both)
// column pairs: int -- pairs of predictions looked at
// order: -|difference|, motif
// rows: k
// seeks: nothing; scans Item
// merge: group motif; mean share_a, share_b, weight_a, weight_b by pairs; sum pairs; difference and change again
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
WITH count(*) AS pairs
WHERE pairs > 0
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
WITH DISTINCT pairs, ta, tb, ia.item_id AS item_id
MATCH (oa:Output)-[:OF]->(ta)
MATCH (ob:Output)-[:OF]->(tb)
WHERE ob.pos - tb.n_prompt_tokens = oa.pos - ta.n_prompt_tokens AND coalesce(oa.pos - oa.first_pos, -1) = coalesce(ob.pos - ob.first_pos, -1)
  AND oa.correct = $correct                                                    // when $correct
  AND EXISTS { MATCH (oa)-[:EMITS]->(e:Token) WHERE e.origin = $origin }       // when $origin
UNWIND [oa.uid, ob.uid] AS side
MATCH (p:Path)
WHERE p.output_uid = side AND p.rank >= 1
MATCH (s:Token)-[:INFLUENCES]->(y:Output) WHERE y.uid = side AND s.pos = p.source_pos AND s.sink = $sink // when $sink
WITH pairs, p.motif AS motif,
     sum(CASE WHEN side = oa.uid THEN p.share ELSE 0.0 END) / pairs AS share_a,
     sum(CASE WHEN side = oa.uid THEN 0.0 ELSE p.share END) / pairs AS share_b,
     sum(CASE WHEN side = oa.uid THEN p.weight ELSE 0.0 END) / pairs AS weight_a,
     sum(CASE WHEN side = oa.uid THEN 0.0 ELSE p.weight END) / pairs AS weight_b
RETURN motif, share_a, share_b, share_b - share_a AS difference, weight_a, weight_b,
       CASE WHEN share_a < $min_share AND share_b >= $min_share THEN 'gained' WHEN share_a >= $min_share AND share_b < $min_share THEN 'lost'
            WHEN share_a >= $min_share THEN 'kept' ELSE 'unused' END AS change, pairs
ORDER BY abs(share_b - share_a) DESC, motif
LIMIT $k
