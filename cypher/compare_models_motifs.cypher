// name: compare_models_motifs
// question: Which motifs of exact paths did one model, or checkpoint, gain or lose against another on the same prompts?
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
// seeks: nothing; scans Trace (one row a trace) to join the two models' traces by prompt_hash
// merge: group motif; mean share_a, share_b, weight_a, weight_b by pairs; sum pairs; difference and change again
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
WITH count(*) AS pairs
WHERE pairs > 0
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
