// name: context_or_prompt
// question: Do the answers rest on documents, on the user's or system's words, on tool results, or on what the model said before?
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
// param min_share: float(0..1) = 0 -- count a prediction for a row only if its share of it is at least this
// param sink: bool = true -- with attention sinks among the tokens of `origin`; spans hold theirs in any case
// param k: int(1..) = 50 -- rows at most
// column model_id: string -- model
// column kind: string -- `origin` (of tokens), or a kind of span; kinds overlap, the rows of one kind seldom do
// column name: string? -- prompt, generated or given for `origin`; the role's name; null for other kinds
// column outputs: int -- predictions that had such tokens before them
// column share_mean: float -- mean over those predictions of their share of `direct`, sinks left out, 0 to 1
// column share_sum: float -- sum of it
// column score_mean: float -- mean over those predictions of their signed contribution, logits
// order: model_id, -share_sum, kind, name
// rows: k
// seeks: Trace.trace_id when given; without them scans INFLUENCES
// merge: group model_id, kind, name; sum outputs, share_sum; mean share_mean, score_mean by outputs
MATCH (o:Output)-[:OF]->(tr:Trace)
WHERE tr.ready_id IS NOT NULL
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
MATCH (s:Token|Span)-[i:INFLUENCES]->(o)
WHERE $sink OR NOT coalesce(s.sink, false)
WITH tr.model_id AS model_id, o.uid AS output, CASE WHEN s.kind IS NULL THEN 'origin' ELSE s.kind END AS kind,
     CASE WHEN s.kind IS NULL THEN s.origin WHEN s.kind = 'role' THEN s.ref ELSE NULL END AS name,
     sum(i.share) AS share, sum(i.score) AS score
WHERE share >= $min_share
RETURN model_id, kind, name, count(*) AS outputs, avg(share) AS share_mean, sum(share) AS share_sum, avg(score) AS score_mean
ORDER BY model_id, share_sum DESC, kind, name
LIMIT $k
