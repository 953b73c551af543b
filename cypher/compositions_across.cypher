// name: compositions_across
// question: Which component feeds which, through what input, over all predictions (or those of one token)?
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
// param src: string? -- only this writer: emb, bias, L5.h1 or L0.mlp
// param dst: string? -- only this reader: L5.h1, L0.mlp or out
// param via: string(V|K|Q|MLP|OUT)? -- only through this input
// param min_weight: float(0..) = 0 -- count a prediction for a pair only if |weight| is at least this, logits
// param k: int(1..) = 20 -- rows at most
// without min_share: a composition has a weight and no share; `min_weight` says how large
// without sink: a composition is a sum over positions
// column model_id: string -- model
// column src: string -- writer; bias stands for what comes from no token
// column dst: string -- reader
// column via: string -- the reader's input: V, K, Q, MLP or OUT
// column outputs: int -- predictions in which it is among the stored compositions (and holds min_weight)
// column weight_mean: float -- mean of its exact signed weight over those predictions, logits
// column size_mean: float -- mean of |weight| over them, logits
// column size_max: float -- the largest of these, logits
// column size_sum: float -- their sum: what the rows are ranked by, logits
// order: -size_sum, model_id, src, dst, via
// rows: k
// seeks: nothing unless a token is given; scans Composition (128 rows a prediction by default), never the edges
// merge: group model_id, src, dst, via; sum outputs, size_sum; mean weight_mean, size_mean by outputs; max size_max
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
MATCH (c:Composition)-[:OF]->(o)
WHERE abs(c.weight) >= $min_weight
  AND c.src = $src                                                             // when $src
  AND c.dst = $dst                                                             // when $dst
  AND c.via = $via                                                             // when $via
RETURN tr.model_id AS model_id, c.src AS src, c.dst AS dst, c.via AS via, count(*) AS outputs, avg(c.weight) AS weight_mean,
       avg(abs(c.weight)) AS size_mean, max(abs(c.weight)) AS size_max, sum(abs(c.weight)) AS size_sum
ORDER BY size_sum DESC, model_id, src, dst, via
LIMIT $k
