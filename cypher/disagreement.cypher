// name: disagreement
// question: Where does the model, with a source knocked out, contradict what the trace says of that source?
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
// param kind: string(column|edge|head|motif|mean_embedding)? -- only knockouts of this kind
// param min_ranks: int(1..) = 3 -- also show sources whose two ranks differ by at least so many places, though their signs agree
// param sink: bool? -- only knockouts of attention sinks (true), or of everything else (false)
// param k: int(1..) = 20 -- rows at most
// without min_share: a knockout is a measurement in logits, no share
// column output_id: string -- the prediction
// column kind: string -- column, edge, head, motif or mean_embedding
// column pos: int? -- position of the token that was removed, where it was a token
// column first_pos: int? -- first position of the span that was removed, where it was a span
// column last_pos: int? -- its last position
// column text: string? -- text of that token or span; null where text was not kept
// column motif: string? -- motif whose heads were removed, where it was a motif
// column layer: int? -- layer, where it was a head or one edge of a head
// column head: int? -- head, where it was a head or one edge of a head
// column query_pos: int? -- query position, where it was an edge
// column score: float -- what the trace says that the source contributes, logits
// column effect: float -- measured: `explained` without the source less `explained` with it, logits; the trace predicts -score
// column effect_logp: float -- the same for the token's log probability, nats
// column gap: float -- effect + score: how far the measurement is from the prediction, logits
// column sign: bool -- do the signs contradict each other
// column rank_score: int -- 1 is the largest |score| among the newest knockouts of this kind and prediction (spans among spans)
// column rank_effect: int -- 1 is the largest |effect| among them
// column created_at: int -- when it was measured, milliseconds since 1970-01-01 UTC
// order: -|gap|, output_id, kind, pos, first_pos, motif, layer, head, query_pos, last_pos, created_at
// rows: k
// seeks: Output.output_id or Trace.trace_id; without them scans every KNOCKOUT edge. Only the newest measurement of a source counts
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
WITH DISTINCT o
MATCH (s)-[every:KNOCKOUT]->(o)
WHERE every.created_at IS NOT NULL
  AND every.kind = $kind                                                       // when $kind
  AND coalesce(s.sink, false) = $sink                                          // when $sink
WITH o, s, every.kind AS kind, coalesce(every.layer, -1) AS layer, coalesce(every.head, -1) AS head,
     coalesce(every.query_pos, -1) AS query_pos, max(every.created_at) AS newest
MATCH (s)-[r:KNOCKOUT]->(o)
WHERE r.kind = kind AND r.created_at = newest AND coalesce(r.layer, -1) = layer AND coalesce(r.head, -1) = head
  AND coalesce(r.query_pos, -1) = query_pos AND r.estimate IS NOT NULL
WITH o.output_id AS output_id, kind, s.first_pos IS NULL AS one_place, collect({uid: s.uid, pos: s.pos, first_pos: s.first_pos, last_pos: s.last_pos, text: s.text,
     motif: s.motif, layer: r.layer, head: r.head, query_pos: r.query_pos, score: r.estimate, effect: r.effect,
     effect_logp: r.effect_logp, created_at: r.created_at}) AS found
UNWIND found AS one
UNWIND found AS other
WITH output_id, kind, one, 1 + sum(CASE WHEN abs(other.score) > abs(one.score) THEN 1 ELSE 0 END) AS rank_score,
     1 + sum(CASE WHEN abs(other.effect) > abs(one.effect) THEN 1 ELSE 0 END) AS rank_effect
WHERE one.score * one.effect > 0 OR abs(rank_score - rank_effect) >= $min_ranks
RETURN output_id, kind, one.pos AS pos, one.first_pos AS first_pos, one.last_pos AS last_pos, one.text AS text, one.motif AS motif,
       one.layer AS layer, one.head AS head, one.query_pos AS query_pos, one.score AS score, one.effect AS effect,
       one.effect_logp AS effect_logp, one.effect + one.score AS gap, one.score * one.effect > 0 AS sign, rank_score, rank_effect,
       one.created_at AS created_at
ORDER BY abs(gap) DESC, output_id, kind, pos, first_pos, motif, layer, head, query_pos, last_pos, created_at
LIMIT $k
