{{ staged_event('experiment_exposed') }}
