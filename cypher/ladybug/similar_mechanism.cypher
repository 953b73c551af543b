// name: similar_mechanism
// question: Which other predictions were made by the same heads?
// param output_id: string? -- the explained prediction, `trace_id:pos:token_id[-foil_token_id]`
// param output_uid: int? -- the same by its key in this store, found without a scan
// needs: one of output_id, output_uid
// param any_model: bool = false -- also other models with as many layers and heads (otherwise the same weights only)
// param model_id: string? -- only predictions by this model
// param method: string? -- only predictions by this attribution method
// param dataset: string? -- only predictions of traces that an Item of this data set asked for
// param split: string? -- only predictions of traces that an Item of this split asked for
// param tag: string? -- only predictions of traces that an Item with this tag asked for
// param session_id: string? -- only predictions of traces that an Item of this session asked for
// param since: int? -- only predictions of traces made at or after this time, milliseconds since 1970-01-01 UTC
// param until: int? -- only predictions of traces made before this time, milliseconds since 1970-01-01 UTC
// param correct: bool? -- only Outputs whose token is (true) or is not (false) the start of what was expected
// param origin: string(prompt|generated|given)? -- only Outputs whose token stands in the text and came from here
// param min_cosine: float(-1..1) = -1 -- only predictions at least this similar
// param k: int(1..) = 20 -- rows at most
// without min_share: every head counts, whatever its share; `min_cosine` says how similar
// without sink: a head's relevance is over all positions
// column trace_id: string -- the other prediction's trace
// column output_id: string -- the other prediction
// column model_id: string -- its model
// column pos: int -- position whose logits were read
// column token_id: int -- the predicted token
// column text: string? -- its text; null where text was not kept
// column prob: float -- its probability
// column correct: bool? -- is it the start of what was expected
// column cosine: float -- cosine of the two predictions' relevance of every head, -1 to 1
// order: -cosine, output_id
// rows: k
// seeks: the given Output; then scans every Output's head_vector (layers x heads numbers each)
// merge: not across stores: the given Output's vector is in one of them
MATCH (o:Output)-[:OF]->(tr:Trace)
WHERE tr.ready_id IS NOT NULL
  AND o.output_id = $output_id                                                 // when $output_id
  AND o.uid = $output_uid                                                      // when $output_uid
MATCH (p:Output)-[:OF]->(other:Trace)
WHERE other.ready_id IS NOT NULL AND p.uid <> o.uid
  AND other.n_layers = tr.n_layers AND other.n_heads = tr.n_heads AND size(p.head_vector) = size(o.head_vector)
  AND ($any_model OR other.model_fingerprint = tr.model_fingerprint)
  AND other.model_id = $model_id                                               // when $model_id
  AND other.method = $method                                                   // when $method
  AND other.created_at >= $since                                               // when $since
  AND other.created_at < $until                                                // when $until
  AND p.correct = $correct                                                     // when $correct
  AND EXISTS { MATCH (p)-[:EMITS]->(e:Token) WHERE e.origin = $origin }        // when $origin
  AND EXISTS { MATCH (x:Item)-[:OF]->(other) WHERE x.item_id IS NOT NULL       // when $dataset or $split or $tag or $session_id
      AND x.dataset = $dataset                                                 // when $dataset
      AND x.split = $split                                                     // when $split
      AND $tag IN x.tags                                                       // when $tag
      AND x.session_id = $session_id                                           // when $session_id
  }                                                                            // when $dataset or $split or $tag or $session_id
WITH p, other, o.head_vector AS a, p.head_vector AS b
WITH p, other, list_sum(list_transform(range(1, size(a)), i -> 1.0 * a[i] * b[i])) AS dot,
     list_sum(list_transform(a, x -> 1.0 * x * x)) * list_sum(list_transform(b, x -> 1.0 * x * x)) AS norm
WHERE norm > 0
WITH p, other, dot / sqrt(norm) AS cosine
WHERE cosine >= $min_cosine
RETURN other.trace_id AS trace_id, p.output_id AS output_id, other.model_id AS model_id, p.pos AS pos, p.token_id AS token_id,
       p.text AS text, p.prob AS prob, p.correct AS correct, cosine
ORDER BY cosine DESC, output_id
LIMIT $k
