// name: step_graph
// question: Which documents, messages and earlier steps does each step of an answer rest on?
// param trace_id: string -- the trace
// param by: string(direct|score|total) = direct -- order of the sources: by the unsigned ranking, by |score|, or followed back by |total|
// param steps_only: bool = false -- only what steps took from steps
// param k: int(1..) = 200 -- rows at most
// column step_kind: string -- step, or answer (the whole of it)
// column step: int -- place among the spans of its kind, from 0
// column step_text: string? -- its text; null where text was not kept
// column explained: float -- sum of `explained` over its tokens' predictions, logits
// column bias: float -- sum of their biases, logits
// column own: float -- what they got from the step's own earlier tokens, logits
// column unassigned: float -- what they got from tokens that lie in no span, logits
// column source_kind: string -- kind of the span that it rests on
// column source_ref: string? -- its name, such as the document's id
// column source: int -- place among the spans of its kind, from 0
// column source_text: string? -- its text; null where text was not kept
// column direct: float -- sum of `direct` of its tokens, attention sinks left out, over the predictions of the step's tokens, logits
// column score: float -- what the step got from it directly; over all sources, with bias, own and unassigned, they add up to `explained`, logits
// column total: float -- `score` with generated tokens in between followed back to what drove them, logits
// column rank: int -- 1 is the largest `direct`
// order: step_kind, step, -|{by}|, source_kind, source
// rows: k
// seeks: Trace.trace_id; the embedded engine scans that column of Trace
// merge: one store holds the trace; the others give no rows
MATCH (b:Span)-[:OF]->(tr:Trace)
WHERE tr.ready_id IS NOT NULL AND tr.trace_id = $trace_id
MATCH (a:Span)-[s:SUPPORTS]->(b)
WHERE NOT $steps_only OR (a.kind = 'step' AND b.kind = 'step')
RETURN b.kind AS step_kind, b.ordinal AS step, b.text AS step_text, b.explained AS explained, b.bias AS bias, b.own AS own,
       b.unassigned AS unassigned, a.kind AS source_kind, a.ref AS source_ref, a.ordinal AS source, a.text AS source_text,
       s.direct AS direct, s.score AS score, s.total AS total, s.rank AS rank
ORDER BY step_kind, step, CASE $by WHEN 'direct' THEN s.direct WHEN 'score' THEN abs(s.score) ELSE abs(s.total) END DESC, source_kind, source
LIMIT $k
