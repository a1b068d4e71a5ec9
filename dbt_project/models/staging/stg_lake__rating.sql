{{ staged_event('rating') }}
