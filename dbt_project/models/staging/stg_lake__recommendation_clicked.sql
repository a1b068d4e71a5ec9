{{ staged_event('recommendation_clicked') }}
