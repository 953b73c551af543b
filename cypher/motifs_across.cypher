// name: motifs_across
// question: Which paths through the model's components, whatever the positions, carry most, over all predictions (or those of one token)?
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
// param correct: bool? -- only Outputs whose token is (true) or is not (false) the start of what was expected
// param origin: string(prompt|generated|given)? -- only Outputs whose token stands in the text and came from here
// param motif: string? -- only this motif, such as emb>L0.mlp>L23.h4:V>out
// param min_share: float(0..1) = 0 -- count a prediction for a motif only if the motif's share of its stored paths is at least this
// param sink: bool? -- only paths that begin at an attention sink (true), or at another token (false)
// param k: int(1..) = 20 -- rows at most
// column model_id: string -- model
// column motif: string -- the path without positions; one that begins with bias comes from no token
// column outputs: int -- predictions with such a path among their stored ones
// column share_mean: float -- mean over those predictions of its share of |weight| of the stored paths (of all positions added up), 0 to 1
// column share_max: float -- the largest of these, 0 to 1
// column share_sum: float -- their sum: what the rows are ranked by
// column weight_mean: float -- mean over those predictions of its exact signed contribution, logits
// column example: string -- one such prediction's output_id (the first in alphabetical order)
// order: -share_sum, model_id, motif
// rows: k
// seeks: nothing unless a token is given; scans Path (50 rows a prediction by default), never the edges
// merge: group model_id, motif; sum outputs, share_sum; mean share_mean, weight_mean by outputs; max share_max; min example
MATCH (o:Output)-[:OF]->(tr:Trace)
WHERE tr.ready_id IS NOT NULL
  AND o.token_id = $token_id                                                   // when $token_id
  AND o.text = $text                                                           // when $text
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
MATCH (p:Path)-[:OF]->(o)
WHERE p.rank >= 1
  AND p.motif = $motif                                                         // when $motif
MATCH (s:Token)-[:INFLUENCES]->(o) WHERE s.pos = p.source_pos AND s.sink = $sink // when $sink
WITH tr.model_id AS model_id, p.motif AS motif, o.output_id AS output_id, sum(p.share) AS share, sum(p.weight) AS weight
WHERE share >= $min_share
RETURN model_id, motif, count(*) AS outputs, avg(share) AS share_mean, max(share) AS share_max, sum(share) AS share_sum,
       avg(weight) AS weight_mean, min(output_id) AS example
ORDER BY share_sum DESC, model_id, motif
LIMIT $k
