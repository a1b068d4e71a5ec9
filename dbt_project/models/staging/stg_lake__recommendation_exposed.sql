{{ staged_event('recommendation_exposed') }}
