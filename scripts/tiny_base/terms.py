TERMS=[("A Pod is the smallest unit.",["What is a Pod?"],"Explain a Pod.")]
ANSWERS=[t[0] for t in TERMS]
