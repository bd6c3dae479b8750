"""The verbs: one public function is one database transaction, or says why it is several."""
