// name: check_conservation
// question: At which stored State, Head or Mlp does what flows in, or out, differ from its relevance?
// param trace_id: string? -- only this trace
// param output_id: string? -- only this prediction
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
// param tolerance: float(0..) = 0.0001 -- largest error that passes, relative to max(|explained|, logit_std)
// param k: int(1..) = 20 -- rows at most
// without min_share: conservation is of every stored node
// without sink: conservation is of every stored node
// column output_id: string -- the prediction
// column node: string -- State, Head or Mlp
// column layer: int -- layer, from 0
// column pos: int -- position, from 0
// column head: int? -- query head, of a Head
// column site: string? -- pre or mid, of a State
// column relevance: float -- what should pass here, logits
// column weight_in: float -- sum of the weights that enter, logits
// column weight_out: float -- sum of the weights that leave, logits
// column gap_in: float -- |weight_in + bias + dropped_in - relevance|, logits
// column gap_out: float -- |weight_out + dropped_out - relevance|, logits
// column error: float -- the larger gap over max(|explained|, logit_std)
// order: -error, output_id, node, layer, pos, head, site
// rows: k
// seeks: Trace.trace_id or Output.output_id; without them scans the whole mechanism level. No row means that all is well: conservation_summary says how many nodes were looked at
// merge: concatenate
MATCH (o:Output)-[:OF]->(tr:Trace)
WHERE tr.ready_id IS NOT NULL AND o.mechanism
  AND tr.trace_id = $trace_id                                                  // when $trace_id
  AND o.output_id = $output_id                                                 // when $output_id
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
MATCH (n:State|Head|Mlp)
WHERE n.output_uid = o.uid
OPTIONAL MATCH ()-[i:EMBEDS|VALUE|KEY|QUERY|READS|WRITES|RESIDUAL]->(n)
WITH o, n, coalesce(sum(i.weight), 0.0) AS weight_in
OPTIONAL MATCH (n)-[x:VALUE|KEY|QUERY|READS|WRITES|RESIDUAL|UNEMBEDS]->()
WITH o, n, weight_in, coalesce(sum(x.weight), 0.0) AS weight_out
WITH o, n, weight_in, weight_out, abs(weight_in + n.bias + n.dropped_in - n.relevance) AS gap_in,
     abs(weight_out + n.dropped_out - n.relevance) AS gap_out,
     CASE WHEN abs(o.explained) > o.logit_std THEN abs(o.explained) ELSE o.logit_std END AS scale
WITH o, n, weight_in, weight_out, gap_in, gap_out, (CASE WHEN gap_in > gap_out THEN gap_in ELSE gap_out END) / scale AS error
WHERE error > $tolerance
RETURN o.output_id AS output_id,
       CASE WHEN n.site IS NOT NULL THEN 'State' WHEN n.head IS NOT NULL THEN 'Head' ELSE 'Mlp' END AS node,
       n.layer AS layer, n.pos AS pos, n.head AS head, n.site AS site, n.relevance AS relevance, weight_in, weight_out,
       gap_in, gap_out, error
ORDER BY error DESC, output_id, node, layer, pos, head, site
LIMIT $k
